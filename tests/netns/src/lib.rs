//! weft-netns
