//! Sends what is pending: a pure verdict and a worker for each destination.
