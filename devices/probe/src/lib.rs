//! weft-probe
