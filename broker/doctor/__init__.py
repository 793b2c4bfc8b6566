"""The checks of `acm doctor`, one module a subject. None of them changes anything."""
