"""The command line: reads arguments, prints figures; what it shows is decided by the floors below."""
