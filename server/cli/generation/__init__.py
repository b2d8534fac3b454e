"""Commands that make pictures: flags become a request, its events a bar, its blobs files."""
