//! Configuration: one file a section, layered as flag, environment, file, default.
