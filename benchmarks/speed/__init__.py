"""nearfar and its peers side by side: a module a topic, each measured by `python -m benchmarks.speed`."""
