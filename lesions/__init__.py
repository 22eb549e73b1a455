"""Train and compare networks that tell seven skin lesions apart: one module, one noun."""
