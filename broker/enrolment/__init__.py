"""Enrolment of agents: tokens, certificates, revocation, and the HTTPS server for it."""
