"""The machine under the agent: programs, files, downloads."""
