"""Real servers, started by the tests on free ports and ended with them."""
