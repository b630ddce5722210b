"""Objects that share light, measured together: neighbours, groups, joint fits, forced fluxes, images of the fit."""
