"""Enrolment of agents: tokens, certificates, revocation."""
