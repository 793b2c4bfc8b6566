"""How an agent gets a certificate from an enrolment server, keeps it, renews it, and moves to another server."""
