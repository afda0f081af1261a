"""Image ref → bytes → RGB views: the only room that fetches and decodes.

In: `ImageRef`s, hostile. Out: bytes, then `DecodedImage`s, or for each the named reason why not.
Nothing that could not be looked at ever leaves here as an image.
"""
