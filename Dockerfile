# The demo page with the packaged network; give other arguments after the image's name.
FROM python:3.11-slim
RUN useradd --create-home --uid 1000 lava
WORKDIR /home/lava/depth
COPY --chown=lava . .
RUN pip install --no-cache-dir -e ".[demo]"
USER lava
EXPOSE 7860
ENTRYPOINT ["python", "-m", "app.serving.demo", "--host", "0.0.0.0", "--port", "7860"]
CMD ["--model", "tiny-worlds"]
