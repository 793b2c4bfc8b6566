"""Active responses: scripts that act on an alert and are reversed later, with the protocol of Wazuh 4.x."""
