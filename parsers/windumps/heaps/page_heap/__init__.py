"""Page heap: full and light, as Application Verifier and gflags turn it on."""
