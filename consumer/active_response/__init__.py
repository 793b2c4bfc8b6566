"""Active responses: scripts that act on an alert and take that back later, in the protocol of Wazuh 4.x."""
