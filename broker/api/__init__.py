"""The HTTP API: routes that authenticate, authorize, call the fleet, and encode its answer."""
