"""The command line's rooms: parse, call, print."""
