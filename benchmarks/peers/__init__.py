"""Other libraries' contenders, each in its own idiom."""
