"""The C++ kernels: Avro columns (`_avro`) and tree ensembles (`_trees`)."""
