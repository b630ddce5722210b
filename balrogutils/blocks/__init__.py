"""One module per block: products in, products out, a manifest last."""
