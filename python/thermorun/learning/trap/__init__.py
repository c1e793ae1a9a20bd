"""The exactly solvable case: a harmonic trap whose centre is learned or driven (Hnybida & Verret 2025)."""
