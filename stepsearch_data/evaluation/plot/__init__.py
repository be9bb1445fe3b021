"""What several runs show: `runs` reads them, `curves` compares them by `statistics`, `chart` draws them."""
