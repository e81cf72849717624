"""What `pretrain` and `fit` share: the loop, its settings, objectives, optimizer, states and early stopping."""
