"""Raw rollouts: landed files in, typed rows and a quarantine out; and the embedded teacher that lands its own."""
