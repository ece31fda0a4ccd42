"""Finding what each latent of a finished suite responds to, and pages to browse it."""
