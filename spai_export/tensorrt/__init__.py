"""TensorRT: what it imports (lint), its builder and inspector, and plans beside the graphs of an exported directory."""
