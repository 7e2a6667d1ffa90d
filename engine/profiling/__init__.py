"""Network evaluations, FLOPs, memory and peak throughput. Imports diffusion and below."""
