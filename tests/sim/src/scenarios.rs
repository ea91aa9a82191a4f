//! Failures that were found, each as a story of its own.
