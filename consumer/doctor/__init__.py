"""The checks of `acm-agent doctor`, one module a subject. None of them changes anything."""
