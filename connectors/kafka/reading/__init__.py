"""Reading the input as a member of a group: where to begin, what is believed after an error, which topic it is; setting where."""
