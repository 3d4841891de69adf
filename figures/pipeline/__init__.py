"""An End-to-End Network Pruning Pipeline with Sparsity Enforcement (Dogariu): the pipeline."""
