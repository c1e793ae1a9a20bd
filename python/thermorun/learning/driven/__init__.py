"""Any potential driven along a prescribed path of theta: the work, and what of it is excess."""
