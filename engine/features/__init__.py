"""What a record's fields become: columns of the matrix, and the policies for what is missing or unseen."""
