"""The store in memory: the contract as a program for tests and simulation, and a store to try a node out with."""
