"""Band coadds, the detection image and the catalogues of one tile, made by SWarp and SExtractor."""
