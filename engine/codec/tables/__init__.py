"""Tables (data frames, Arrow, files of columns) to matrix rows, by the rules of the record readers."""
