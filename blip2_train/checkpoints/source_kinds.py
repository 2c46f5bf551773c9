"""What weights can be read, for messages and help."""

UNDERSTOOD = (
    "an export of blip2_train, a run folder with one, last:<recipe>, a Hugging Face folder or id of "
    "Blip2ForConditionalGeneration or Blip2ForImageTextRetrieval, a LAVIS .pth file, a Paddle .pdparams file"
)
