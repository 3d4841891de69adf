"""Lines and planes through weights, and the loss on them."""
