"""A small application, its backup under load, its loss, and its return: `python -m demo`."""
