"""What two results have not in common: found (`compare`), then told (`page`) in a terminal or as HTML."""
