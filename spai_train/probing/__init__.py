"""What `spai-train probe` is made of: features that are computed once, and the linear layer that is fitted to them."""
