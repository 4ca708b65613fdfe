"""What several recipes share: classification, decoupled scores, the frozen base, label tables, patch masks."""
