"""An agent that keeps its enrolment."""


class NoDeparture:
    """Neither holds commands back nor refuses them."""

    holds = False
    refusal = None
