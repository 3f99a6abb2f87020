//! Tests that install or drive bursar as its users do.
