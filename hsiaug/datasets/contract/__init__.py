"""The sample contract: of samples, of batches, and what a dataset says of its samples."""
