"""What answers a request for a page: who may ask, the files, the API, and the streams that browsers follow."""
