"""Pictures of explanations as SVG, and a page of them: no plotting package, nothing fetched."""
