"""Parts that tests of several folders share: builders of values, clocks that are set by hand."""
