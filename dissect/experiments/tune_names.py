"""What `tune` tries unless it is told; the command line's help, which must be quick, has it from here."""

IMPORTANCES = ("abs", "rms", "std", "attribution", "attribution_abs", "fisher")
COMBINERS = ("ratio", "difference", "normalized_difference", "set_difference", "threshold")
EDITS = ("zero", "mean", "compensate")
